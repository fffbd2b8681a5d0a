"""Whether there is a host to test with."""

import pytest
import s4s_host


def test_a_host_is_here():
    if reason := s4s_host.missing():
        pytest.skip(reason)
    import comfyui_version
    assert comfyui_version.__version__
    assert s4s_host.pack("s4s_nodes.hosts.comfyui.extension")
