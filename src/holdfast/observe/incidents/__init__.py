"""What happened, from a gateway's log: Holdfast's or OpenClaw's. Bytes become lines (`log_files`, `log_lines`), lines
become events (`log_events`), events become a report (`tally`, `findings`), which is shown as text or as a page. Nothing
here needs a state directory. Read `log_events.py` first.
"""
