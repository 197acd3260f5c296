"""A Kafka broker that somebody else started."""

from typing import NoReturn

from relive.testing.broker import BrokerNotOurs, wait_until_answers

# It is said to be there, so it is not waited for as one is that starts.
ANSWER_TIMEOUT_S = 10.0


class AddressBroker:
    """A broker that is used and left alone. Fulfils `relive.testing.broker.Broker`."""

    via = "address"

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def __repr__(self) -> str:
        return f"<AddressBroker {self.bootstrap}>"

    def kill(self) -> None:
        self._refuse()

    def restart(self) -> None:
        self._refuse()

    def pause(self) -> None:
        self._refuse()

    def resume(self) -> None:
        self._refuse()

    def ensure_running(self) -> None:
        wait_until_answers(self.bootstrap, ANSWER_TIMEOUT_S)

    def stop(self) -> None:
        """Nothing: it is not ours to stop."""

    def _refuse(self) -> NoReturn:
        raise BrokerNotOurs(f"the broker at {self.bootstrap} was started by somebody else")
