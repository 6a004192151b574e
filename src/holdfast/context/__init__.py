"""What the model gets to see of a conversation. A branch of lines comes in, messages go out.

Promised: calls and results are paired, what is not for the model is left out, the turn's own input stands last. Pure.
Read `plan.py` first.
"""
