"""Models: one request, one stream, and failover around it.

In: a chain of model references and a `ModelRequest` in the transcript's own message form. Out: deltas as they come and
one `ModelAnswer`, or an error of one of four families; only a `ProviderError` moves on to the next model. Promised: an
answer ended as its provider meant it to; who may write is never mistaken for a model's failure; each decision has its
receipt; no secret is told.

Read `client.py` first (the seam), then `failover.py` (the loop), `failure.py` (what kind of failure an error is) and
`pydantic_ai.py` (the real providers). `catalog.py` knows where models are, `demo.py` needs no network. SDKs are
imported with the first request to them.
"""
