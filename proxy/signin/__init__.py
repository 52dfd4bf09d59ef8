"""Sign-in tokens: what a frontend's own login gives its users is enough to call with."""

from proxy.signin.fetching import Fetcher
from proxy.signin.tokens import SignIn

__all__ = ["Fetcher", "SignIn"]
