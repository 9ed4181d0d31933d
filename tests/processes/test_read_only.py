"""A file that may only be read, under a tracker in a process that is not the superuser's."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from tests.processes.program import ended_well

if TYPE_CHECKING:
    from tests.servers import TrackingServer

NOBODY: Final = 65534


def test_where_a_file_may_only_be_read_memory_takes_over_until_it_may_be_written(
    tracking_server: TrackingServer,
) -> None:
    script = """
        import pathlib
        reach(1)
        assert tracker.flush(20.0)  # all is imported that nobody may read
        if os.getuid() == 0:
            os.setuid(65534)  # the superuser may write anywhere
        folder = pathlib.Path(FOLDER)
        now = [time.time()]

        def allow(folder_mode, file_mode):
            folder.chmod(0o700)
            for path in folder.iterdir():
                path.chmod(file_mode)
            folder.chmod(folder_mode)

        def a_tracker():
            global tracker
            tracker = Tracker(Settings(
                project_id="1", customer_id="2", secret_key="a secret of at least 16 bytes",
                endpoint=ENDPOINT, outbox=f"sqlite:///{folder}/outbox.db",
            ), clock=lambda: now[0])

        a_tracker()
        reach(2)
        assert tracker.flush(20.0) and tracker.close()
        allow(0o500, 0o400)
        a_tracker()
        for goal in range(3, 23):
            reach(goal)
        assert tracker.flush(20.0)
        allow(0o700, 0o600)
        now[0] += 60
        reach(23)
        assert tracker.flush(20.0) and tracker.close()
        print(tracker.stats().delivered)
    """
    with TemporaryDirectory() as folder:  # not below tmp_path, where only its owner may look
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        end = ended_well(tracking_server, script, early=f"FOLDER = {folder!r}")
        assert sorted(path.name for path in Path(folder).glob("*.db")) == ["outbox.db"]

    assert end.out == "21\n"
    assert sorted(
        int(target.partition("&g=")[2].partition("&")[0]) for target in tracking_server.targets
    ) == [*range(1, 24)]
    said = [line for line in end.err.splitlines() if line.startswith(("WARNING", "ERROR"))]
    assert [line.partition(" ")[0] for line in said] == ["ERROR", "WARNING"], said
    assert said[0].endswith(": Permission denied. Hits wait in memory meanwhile."), said
    assert said[1] == "WARNING The outbox works again."
