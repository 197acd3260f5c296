import os
import threading

from relive.producers.random_ids import random_id


def test_ids_are_16_bytes_and_never_come_twice_from_any_thread() -> None:
    drawn: list[list[bytes]] = [[] for _ in range(4)]

    def draw(ids: list[bytes]) -> None:
        ids.extend(random_id() for _ in range(2_000))

    threads = [threading.Thread(target=draw, args=(ids,)) for ids in drawn]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [one for ids in drawn for one in ids]
    assert {len(one) for one in every} == {16}
    assert len(set(every)) == len(every) == 8_000


def test_a_forked_child_draws_other_ids_than_its_parent() -> None:
    random_id()  # some are drawn ahead now
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"".join(random_id() for _ in range(256)))
        os._exit(0)
    os.waitpid(child, 0)
    raw = os.read(read, 256 * 16)
    os.close(read)
    os.close(write)
    assert len(raw) == 256 * 16
    theirs = {raw[at : at + 16] for at in range(0, len(raw), 16)}
    assert not theirs & {random_id() for _ in range(256)}
