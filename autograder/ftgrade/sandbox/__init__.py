"""The sandbox in which student code runs: one protocol and several backends, each tested by real escape attempts.

Theory of operation. The grader starts one *parent* process (`jail.py`, which runs `worker.py`) in a clean
environment. The parent imports numpy and torch and then confines itself. It enters its own user, mount, network, PID,
IPC and host-name namespaces. Its file system holds only the read-only libraries and the devices null, zero, full,
random and urandom. If the grader is root, the parent becomes the user nobody. The parent also makes the notebook's
shell (`shell.py`), which is IPython's own.

For each submission the parent forks a *child*. The child is the first process of its own PID namespace, so that all
its descendants end with it. Its only writable place is an empty file system in memory of 64 MiB and 2,000 entries. It
has resource limits, a user namespace in which its processes and threads are counted separately, a Landlock domain, no
capabilities and no way to gain any, and a list of allowed system calls. The child reports that it is confined, and
only then does the grader send its first cell. If a layer can't be set up, that is an OurFault and no code runs.

Only data crosses, over one socket. The calls of one check are sent together; each gets a reply of its own. After each
check the grader empties the folder and counts threads and processes. If the calls left one behind, the child is ended
and the next check gets a new one. Between the calls of one problem only the notebook's own names persist. No verdict
is ever sent in, so student code can learn nothing but the inputs.

Threat model. The code of a submission is hostile and knows this text. It wants an undeserved score, the grader's
files, another student's work, the network, the machine, or to stop the grading of the class. The libraries, the
kernel, the problem's author and the instructor are trusted.

What it does not protect against: a vulnerability of the kernel, which is shared (to grade thousands of strangers, use
a machine that holds nothing else); timing and load, through which two submissions that run at once can signal to each
other; answers that were looked up elsewhere and copied; anyone who has the course's secret. With Landlock alone (where
user namespaces are forbidden) the child's folder is on the real disk, so that files of 16 MiB each can fill it, and
the child may start no process. `ftgrade doctor` prints what holds. Grading for marks demands that every mandatory
probe holds, or stops and says why.
"""
