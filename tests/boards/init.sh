#!/bin/bash
# Pid 1 of a board, in mount, pid, uts and ipc namespaces of its own: mounts its world and becomes its SSH server.
#   init.sh ROOT STATE NAME
set -e
root=$1 state=$2 name=$3 own=$2/root
mount --make-rprivate /
mkdir -p "$state/layer/upper" "$state/layer/work" "$own"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$state/layer/upper,workdir=$state/layer/work" "$own"
mount -t proc proc "$own/proc"
# QEMU shows the host's x86 CPU there, and ONNX Runtime's reader of it dies of what it does not know.
mount --bind "$state/cpuinfo" "$own/proc/cpuinfo"
mount -t sysfs -o ro sysfs "$own/sys" 2>/dev/null || mount --rbind /sys "$own/sys"
mount -t tmpfs -o mode=755 tmpfs "$own/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "$own/dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 "$own/dev/tty" c 5 0
mkdir "$own/dev/pts" "$own/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$own/dev/pts"
ln -s pts/ptmx "$own/dev/ptmx"
ln -s /proc/self/fd "$own/dev/fd"
for fd in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${fd#*:}" "$own/dev/${fd%:*}"; done
mount -t tmpfs -o mode=1777 tmpfs "$own/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$own/run"
mount -t tmpfs -o mode=1777 tmpfs "$own/tmp"
mkdir -m 755 "$own/run/sshd" "$own/run/board"
cp "$state/hostkey" "$state/sshd_config" "$own/run/board/"
cp "$state/key.pub" "$own/run/board/authorized_keys"
chmod 600 "$own/run/board/hostkey"
touch "$own/var/log/lastlog"
echo "$name" > "$own/etc/hostname"
echo "127.0.0.1 localhost $name" > "$own/etc/hosts"
hostname "$name"
cd "$own"
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot "$own" /usr/sbin/sshd -D -e -f /run/board/sshd_config
