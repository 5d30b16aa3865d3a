"""Every exception that this package raises on purpose.

* `ShardError`: the root.
    * `Retryable`: trying again later may help; the message says what is waited for.
        * `CoordinatorUnavailable`: the cluster's API did not answer, or answered 5xx or 429.
        * `SinkUnavailable`: a sink cannot be reached or refuses events.
    * `Terminal`: trying again never helps; somebody has to change something.
        * `ConfigError`: an argument or a field of the configuration does not fit.
        * `RangeGone`: the ShardRange is not there any more, or is another one of the same name.
        * `NotHolder`: another pod holds the range.
    * `GatewayProtocolError`: what came over a socket breaks the rules; answered by a reconnect.
        * `Unreadable`: one event's bytes cannot be inflated or their envelope cannot be read.
        * `TooLarge`: one event inflates to more than the limit.
    * `IllegalTransition`: a session was given an input that its state does not allow: a bug, nothing changed.
"""


class ShardError(Exception):
    """Root of this package's exceptions."""


class Retryable(ShardError):
    """Trying again later may help."""


class CoordinatorUnavailable(Retryable):
    """The cluster's API did not answer, or answered 5xx or 429."""


class SinkUnavailable(Retryable):
    """A sink cannot be reached or refuses events; the message is for people and holds no secret."""


class Terminal(ShardError):
    """Trying again never helps."""


class ConfigError(Terminal):
    """An argument or a field of the configuration does not fit; the message names it and the fix."""


class RangeGone(Terminal):
    """The ShardRange is not there any more, or another one of the same name is."""


class NotHolder(Terminal):
    """Another pod holds the range: nothing may be sent to Discord nor written as its holder."""


class GatewayProtocolError(ShardError):
    """What came over a socket breaks the rules."""


class Unreadable(GatewayProtocolError):
    """One event's bytes cannot be inflated or their envelope cannot be read."""


class TooLarge(Unreadable):
    """One event inflates to more than the limit."""


class IllegalTransition(ShardError):
    """A session was given an input that its state does not allow."""
