"""The one exception that means: the user's input is at fault, and this is what to do about it."""


class UserError(Exception):
    """Bad input. The message is one line that names the file or option, what is wrong, and the remedy.

    The command line prints the message without a traceback and exits with code 2.
    """
