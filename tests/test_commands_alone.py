"""The promised commands that need no other run, and whose run no other needs."""

import promised
import pytest
from promised import place, server

__all__ = ("place", "server")


@pytest.mark.commands
@pytest.mark.parametrize("where, command", promised.cases(promised.alone))
def test_command_runs(where, command, place, server):
    promised.check(where, command, place, server)
