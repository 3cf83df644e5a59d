"""What the client remembers: the trees, the outbox and the cursor, in one SQLite database."""

from __future__ import annotations

from dblike_cli.state.offers import Offer
from dblike_cli.state.outbox import Sending
from dblike_cli.state.store import State, said_plainly
from dblike_cli.state.tree import Known

__all__ = ["Known", "Offer", "Sending", "State", "said_plainly"]
