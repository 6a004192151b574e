"""What agents may do besides talking: the tools themselves, and who decides whether a call may run.

A model's call comes in, as it stands in the transcript; a result goes out, which is written behind it. Promised: a call
runs only if the policy says so, or a person who was shown exactly this call; every call has one result, whatever
happens; nothing that a tool starts outlives what started it without somebody being told of its end.

Read `policy.py` first (what may run), then `gate.py` (what every call passes), `approval.py` (asking a person). The
tools: `files.py` over `workspace.py`, `exec.py` over `process.py`, `background.py`, `message.py`, `status.py`,
`respond.py`.
"""
