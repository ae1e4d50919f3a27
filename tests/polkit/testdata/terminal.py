#!/usr/bin/python3
# Runs a command on a terminal of its own and types a password when it is asked
# for one, once the file GATE is there.
#   terminal.py GATE PASSWORD COMMAND...
import os, pty, select, sys, time

gate, password, command = sys.argv[1], sys.argv[2], sys.argv[3:]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
seen, typed = "", False
while True:
    ready, _, _ = select.select([fd], [], [], 0.05)
    if ready:
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        sys.stdout.write(data.decode(errors="replace"))
        sys.stdout.flush()
        seen += data.decode(errors="replace")
    if "assword:" in seen and not typed and os.path.exists(gate):
        time.sleep(0.2)  # the prompt comes a moment before what is typed is read
        os.write(fd, (password + "\n").encode())
        typed = True
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
