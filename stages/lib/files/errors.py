"""Errors that are a user's to mend: shown as one line, without a traceback."""


class UserError(Exception):
    """Something outside the code is wrong; the message says what, and what to do about it."""

    exit_status = 1


class ParamsError(UserError):
    """`params.yaml`, or the command line, asks for something that does not exist."""

    exit_status = 2
