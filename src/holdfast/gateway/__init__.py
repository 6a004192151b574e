"""HTTP in, settled inputs out: what `holdfast up` serves.

In come requests of chat clients and programs; each becomes one accepted input, or joins the one it repeats. Out go
streamed text and, after the settlement, the answer. Promised: the input is stored before the first byte of a reply, no
retry makes a second turn, a caller who leaves stops nothing, a lost turn is never shown as finished.

`app.py` is the only place that knows all parts. Read `http.py` first, then `openai_api.py`; `door.py` decides what is a
repetition; `guard.py` is the outer wall; `supervise.py` is the process.
"""
