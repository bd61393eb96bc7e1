"""`python -m gpumargin` is the command `gpumargin`."""

from gpumargin.cli import main

if __name__ == "__main__":
    main()
