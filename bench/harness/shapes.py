"""What is asked of every contestant: the shapes of load, and the media that the files lie on."""
import collections

KIB = 1024

# figure: what the shape is mainly about, "iops" or "bytes".
Shape = collections.namedtuple("Shape", "name title rw block depth figure")

SHAPES = (
    Shape("read-4k-d1", "4 KiB random read, depth 1", "randread", 4 * KIB, 1, "iops"),
    Shape("write-4k-d1", "4 KiB random write, depth 1", "randwrite", 4 * KIB, 1, "iops"),
    Shape("read-4k-d32", "4 KiB random read, depth 32", "randread", 4 * KIB, 32, "iops"),
    Shape("write-4k-d32", "4 KiB random write, depth 32", "randwrite", 4 * KIB, 32, "iops"),
    Shape("read-128k-d8", "128 KiB sequential read, depth 8", "read", 128 * KIB, 8, "bytes"),
    Shape("write-128k-d8", "128 KiB sequential write, depth 8", "write", 128 * KIB, 8, "bytes"),
)

MEDIA = {
    "ram": "files in memory (tmpfs), tcp or unix sockets on loopback",
    "disk": "files on this machine's disk, tcp or unix sockets on loopback",
    "guest": "RAM disks of a guest kernel with Soft-RoCE (QEMU without KVM), RDMA between processes of the guest",
}


def is_read(shape):
    return "read" in shape.rw
