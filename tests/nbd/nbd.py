"""nbd.py: as much of the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md) as volatile_disk.py and mirror.py need:
the fixed newstyle handshake with OPT_GO, simple replies."""
import socket
import struct

MAGIC, OPTION, OPTION_REPLY = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST, REPLY = 0x25609513, 0x67446698
READ, WRITE, DISC, FLUSH, TRIM, ZEROES = 0, 1, 2, 3, 4, 6
FLAG_FUA = 1
OPT_ABORT, OPT_INFO, OPT_GO = 2, 6, 7
REP_ACK, REP_INFO, REP_ERR_UNSUP = 1, 3, 0x80000001
HAS_FLAGS, SEND_FLUSH, SEND_FUA = 1, 4, 8
EINVAL, EIO = 22, 5


def receive(sock, count):
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        n = sock.recv_into(view[got:])
        if n == 0:
            raise ConnectionError("the connection has ended")
        got += n
    return bytes(data)


def serve_handshake(sock, size):
    """True: transmission begins. False: the client went away."""
    sock.sendall(struct.pack(">QQH", MAGIC, OPTION, 3))
    (flags,) = struct.unpack(">I", receive(sock, 4))
    while True:
        magic, option, length = struct.unpack(">QII", receive(sock, 16))
        receive(sock, length)
        if magic != OPTION or option == OPT_ABORT:
            return False
        if option not in (OPT_GO, OPT_INFO):
            sock.sendall(struct.pack(">QIII", OPTION_REPLY, option, REP_ERR_UNSUP, 0))
            continue
        info = struct.pack(">HQH", 0, size, HAS_FLAGS | SEND_FLUSH | SEND_FUA)
        sock.sendall(struct.pack(">QIII", OPTION_REPLY, option, REP_INFO, len(info)) + info)
        sock.sendall(struct.pack(">QIII", OPTION_REPLY, option, REP_ACK, 0))
        if option == OPT_GO:
            return True


class Client:
    """Requests carry a cookie of the caller's; replies come in any order."""

    def __init__(self, host, port):
        if host.startswith("/"):  # a unix socket
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(60)
            self.sock.connect(host)
        else:
            self.sock = socket.create_connection((host, port), timeout=60)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        magic, option, flags = struct.unpack(">QQH", receive(self.sock, 18))
        if (magic, option) != (MAGIC, OPTION):
            raise ConnectionError("no NBD server")
        self.sock.sendall(struct.pack(">I", flags & 3) + struct.pack(">QIIIH", OPTION, OPT_GO, 6, 0, 0))
        self.size = 0
        while True:
            _, _, kind, length = struct.unpack(">QIII", receive(self.sock, 20))
            data = receive(self.sock, length)
            if kind == REP_ACK:
                return
            if kind != REP_INFO:
                raise ConnectionError(f"the NBD server refuses: {data.decode(errors='replace')}")
            if struct.unpack(">H", data[:2])[0] == 0:
                self.size, self.flags = struct.unpack(">QH", data[2:12])

    def submit(self, kind, cookie, offset, length, data=b""):
        self.sock.sendall(struct.pack(">IHHQQI", REQUEST, 0, kind, cookie, offset, length) + data)

    def reply(self):
        magic, error, cookie = struct.unpack(">IIQ", receive(self.sock, 16))
        if magic != REPLY:
            raise ConnectionError("not a reply")
        return cookie, error

    def read(self, offset, length):
        self.submit(READ, 0, offset, length)
        _, error = self.reply()
        if error:
            raise OSError(error, f"read at {offset}")
        return receive(self.sock, length)

    def close(self):
        try:
            self.sock.sendall(struct.pack(">IHHQQI", REQUEST, 0, DISC, 0, 0, 0))
        except OSError:
            pass
        self.sock.close()
