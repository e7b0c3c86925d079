"""Floor 1: what differs between devices. Everything above reaches it through `nn`."""
