"""Reviews of pull requests and issues of a GitHub repository, one durable conversation for each (`docs/sweeper.md`)."""

__version__ = "0.1.0"
