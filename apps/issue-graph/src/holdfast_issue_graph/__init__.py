"""From the address of an issue to a report and a drawn graph of all it hangs together with (`docs/issue-graph.md`)."""

__version__ = "0.1.0"
