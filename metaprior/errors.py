"""What goes wrong with a user's input, said so that it can be put right."""


class InputError(ValueError):
    """Bad input; the message names the file, column and row, and what to do. The command line exits
    with 2.
    """
