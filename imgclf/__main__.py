"""`python -m imgclf` is the command `imgclf`, also where the folder of commands is not on the path."""

from imgclf.cli import main

if __name__ == "__main__":
    main()
