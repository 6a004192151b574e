"""Incidents that run: scenarios of what went wrong in the field, replayed against the real code.

In comes a file of incidents (`scenario.py`), out comes one result each (`runner.py`). A scenario becomes processes and
files (`world.py`); its steps change them as the incident did (`verbs.py`), its facts read what the product has left
behind (`facts.py`). `words.py` is the one table from the words of scenarios to those of the product. Start with
`runner.py`; how to write one is in `docs/incidents.md`.
"""
