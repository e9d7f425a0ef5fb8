"""`python -m orchestrator`: the command line, once the names are known to be ours."""

from orchestrator import guard

if __name__ == "__main__":
    guard.check()
    from orchestrator.cli import main

    main()
