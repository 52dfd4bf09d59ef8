"""keyrelay's gateway: checks a call, writes the provider's key, forwards, keeps the answer."""

__version__ = "0.1.0"
