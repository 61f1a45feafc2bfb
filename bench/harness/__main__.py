"""./dev bench: see cli.py for what it is, campaign.py for how it goes."""
import signal
import sys

import campaign
import cli
import engines
import procs
import stages


def on_term(_number, _frame):
    raise KeyboardInterrupt


def main():
    o = cli.parse(sys.argv[1:])
    if o.list:
        cli.show_list(o)
        return 0
    if o.fio_engine:
        path = engines.get(o, "cistern")
        print(path or f"bench: no engine: {engines.failed['cistern']}")
        return 0 if path else 1
    signal.signal(signal.SIGTERM, on_term)
    signal.signal(signal.SIGHUP, on_term)
    try:
        return stages.run(o) if o.stages else campaign.run(o)
    except KeyboardInterrupt:
        print("\nbench: interrupted; everything it had started is stopped and removed, what it had measured is kept", file=sys.stderr)
        return 130
    except procs.Failed as e:
        print(f"bench: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
