/* What the Go side of a PHP host calls once. */
#ifndef POGO_HOST_H
#define POGO_HOST_H

/* A job's request has this Content-Length. No client can send it: net/http lets
 * no negative length but -1 through. */
#define POGO_JOB_REQUEST (-0x706f676fL)

/* Makes the extension part of every PHP that this process starts, with the node's
 * socket at path. False: the path is too long. */
int pogo_install(const char *path);

#endif
