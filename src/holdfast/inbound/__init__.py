"""Every way into a conversation produces one `InboundEvent` and passes one door, `Holdfast.accept`.

Read `event.py` first. `chat.py` tells what a chat client's history adds to a session.
"""
