"""The prison around student code: one protocol, several backends, each judged by real attempts to get out.

Theory of operation. The grader starts one *parent* process (`jail.py`, which runs `worker.py`) in a clean
environment. The parent imports numpy and torch, then shuts itself in: user, mount, network, process, message and
host-name namespaces of its own; a file system that holds nothing but the read-only libraries and the devices null,
zero, full, random and urandom; where the grader is root, the user id of nobody. For each submission it forks a
*child*, which gets a namespace of processes in which it is the first (its end ends all that it started), an empty
file system in memory of 64 MiB and 2,000 entries as its only writable place, resource limits, a user namespace in
which its processes and threads are counted apart, a Landlock domain, no capability, no way to get one, and a list of
allowed system calls. Only then it says so, and only then its first cell is sent. A wall that can't be built is our
fault, told as such, and no code runs.

What crosses is data, by one socket. The calls of one check go in together, and each answer comes back on its own.
After each check the grader empties the folder and counts threads and processes: calls that left one behind cost the
process, and the next check gets a fresh one. What stays between the calls of one problem is what a notebook keeps, its
own names; no verdict ever goes in, so there is nothing to learn there but inputs.

The threat model: the code of a submission is hostile, knows this text, and wants a score that it doesn't deserve,
what judges it, another's work, the network, the machine, or the class to fail. The libraries, the kernel, the author
of a problem and the instructor are trusted.

What it does not protect against: a hole in the kernel (it is shared; for strangers in their thousands grade on a
machine that holds nothing else); measuring time and load, by which two submissions of the same moment can signal to
each other; answers that were looked up elsewhere and written down; whoever has the course's secret. With Landlock
alone (where user namespaces are forbidden) the folder lies on the real disk, so that files of 16 MiB each can fill
it, and no process may be started at all. `ftgrade doctor` prints what holds; grading for marks demands all of it, or
says why it stops.
"""
