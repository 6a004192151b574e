"""`python -m holdfast_issue_graph`: the command `holdfast-issue-graph`."""

from holdfast_issue_graph.cli import main

main(prog_name="holdfast-issue-graph")
