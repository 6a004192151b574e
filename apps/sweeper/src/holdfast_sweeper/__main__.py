"""`python -m holdfast_sweeper`: the command `holdfast-sweeper`."""

from holdfast_sweeper.cli import main

main(prog_name="holdfast-sweeper")
