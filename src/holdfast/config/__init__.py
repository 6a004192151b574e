"""holdfast.toml and HOLDFAST_… variables come in, one frozen `Config` goes out, composed once.

Promised: every fault is reported at once, each with the path of its key; nothing is read from the environment of the
process but from the mapping handed in. Read `model.py` first: it lists all tables, most of which have a module beside
it. `load.py` composes, `environment.py` reads variables, `show.py` tells where each value came from.

Importing this package imports pydantic; `import holdfast` does not import this package.
"""

from holdfast.config.agents import AgentConfig
from holdfast.config.load import Loaded, load_config, read_config
from holdfast.config.model import Config
from holdfast.config.providers import ProviderConfig

__all__ = ["AgentConfig", "Config", "Loaded", "ProviderConfig", "load_config", "read_config"]
