"""Types into a program on a terminal of its own: typist.py MARK TEXT PROGRAM [ARGUMENT...]

When MARK is shown, TEXT is typed; of several parts with ASCII's unit separator between them the next one when MARK is
shown again. Each is typed at once, without the marks of a bracketed paste, as it comes from a serial line or from somebody
who types ahead. What the program shows goes to standard output; its exit status is ours.
"""

import os
import pty
import sys

mark, parts, program = sys.argv[1].encode(), sys.argv[2].encode().split(b"\x1f"), sys.argv[3:]
child, terminal = pty.fork()
if child == 0:
    os.execv(program[0], program)
shown = since = b""
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:  # EIO: nobody has the terminal open any more.
        break
    if not piece:
        break
    shown += piece
    since += piece
    if parts and mark in since:
        os.write(terminal, parts.pop(0))
        since = b""
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
