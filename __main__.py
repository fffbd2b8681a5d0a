"""`python -m s4s` and the program `s4s`."""

import signal
import sys


def main() -> None:
    """The command line. SIGTERM and a closed terminal stop it as Ctrl-C does: a training saves, and says how to resume.
    """
    try:
        for name in ("SIGTERM", "SIGHUP"):          # Windows has no SIGHUP; nohup ignores it
            if signal.getsignal(kind := getattr(signal, name, signal.SIGTERM)) is not signal.SIG_IGN:
                signal.signal(kind, signal.default_int_handler)
        from .training.cli.group import main as commands  # here: Ctrl-C comes before its end, too
        commands(prog_name="s4s")
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
