"""Agent frameworks over Holdfast's sessions: each conversation has one owner, whatever the framework does.

Each module imports its framework and is imported by nobody else: `holdfast.integrations.pydantic_ai` needs the extra
`pydantic-ai`, and so on; `asgi` needs nothing. In: a handle (`holdfast.open`) and the framework's own objects. Out:
objects that the framework takes (a store, a session, a saver, a model) and a wrapper that makes a run a turn.

What a framework keeps is written twice, in one turn: as messages, for people, other lanes and other programs, and in
its own form as one `custom` line, from which it is read back without loss (`keeping.py`, the file to read first).
"""
