"""What people decide about deliveries: send one after all that was given up, or never send it."""

from __future__ import annotations

from holdfast.errors import InputError, UnknownInputError
from holdfast.kernel import Holdfast
from holdfast.lane.states import DELIVERY
from holdfast.outbox.outbox import Change, OpenDelivery


async def retry(hf: Holdfast, delivery_id: str, *, by: str) -> OpenDelivery:
    """Have something that was given up sent after all, in its old place before what came later for its target.

    It carries a label if a copy may have arrived. Durable when it returns; whoever serves the channel sends it.

    Raises:
        InputError: there is no such delivery, or it was not given up.
    """
    return await _decide(hf, delivery_id, "retry", f"to be sent again, by {by}", "only one that failed is sent again")


async def drop(hf: Holdfast, delivery_id: str, *, by: str) -> OpenDelivery:
    """Never send something that has not been sent. What it is about keeps its answer (`holdfast why`). Durable.

    Raises:
        InputError: there is no such delivery, or it was sent, or is being sent at this moment.
    """
    return await _decide(hf, delivery_id, "drop", f"dropped by {by}", "it can no longer be dropped")


async def _decide(hf: Holdfast, delivery_id: str, event: str, detail: str, otherwise: str) -> OpenDelivery:
    while True:
        seen = await hf.store.delivery(delivery_id)
        if seen is None:
            raise UnknownInputError(f"no delivery {delivery_id!r}; `holdfast outbox` lists them")
        if (seen.state, event) not in DELIVERY:
            raise InputError(f"delivery {delivery_id} is {seen.state}: {otherwise}")
        moved = await hf.store.move_delivery(seen, event, Change(detail))
        if moved is not None:
            hf.answers_arrived.set()
            return moved
