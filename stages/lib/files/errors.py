"""Errors that the user can fix: printed as one line, without a traceback."""


class UserError(Exception):
    """The input or the machine is at fault; the message says what is wrong and what to do about it."""

    exit_status = 1


class ParamsError(UserError):
    """`params.yaml` or the command line asks for something that does not exist."""

    exit_status = 2
