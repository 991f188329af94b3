package tun

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

const tunPath = "/dev/net/tun"

// createInterface makes a new TUN interface, which lives as long as the returned fd, and returns
// its name. The fd is non-blocking.
func createInterface(name string) (fd int, _ string, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return -1, "", fmt.Errorf("interface name %q: must be at most %d bytes long", name, unix.IFNAMSIZ-1)
	}
	fd, err = openTUN()
	if err != nil {
		return -1, "", err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	// Exclusive: an interface that is there already has an owner, or addresses not ours.
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	switch {
	case err == nil:
	case errors.Is(err, unix.EBUSY):
		return -1, "", fmt.Errorf("interface %q: the name is taken by another interface", name)
	case errors.Is(err, unix.EINVAL):
		return -1, "", fmt.Errorf("interface name %q: not a name the kernel takes: %w", name, err)
	case errors.Is(err, fs.ErrPermission):
		return -1, "", noPrivilege(err)
	default:
		return -1, "", fmt.Errorf("create interface %q: %w", name, err)
	}
	if err = setOffload(fd); err != nil {
		return -1, "", err
	}
	if err = unix.SetNonblock(fd, true); err != nil {
		return -1, "", fmt.Errorf("set non-blocking: %w", err)
	}
	return fd, ifr.Name(), nil
}

// openTUN opens the file from which TUN interfaces are made.
func openTUN() (int, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, fmt.Errorf("%w: no %s here: the kernel's tun module or the device file is missing (%w)", ErrUnavailable, tunPath, err)
	case errors.Is(err, fs.ErrPermission):
		return -1, fmt.Errorf("%w: may not open %s (%w)", ErrUnavailable, tunPath, err)
	default:
		return -1, fmt.Errorf("open %s: %w", tunPath, err)
	}
}

func noPrivilege(err error) error {
	return fmt.Errorf("%w: no privilege over this network namespace: CAP_NET_ADMIN is needed (%w)", ErrUnavailable, err)
}

// setOffload asks for all offloads the device can describe, or as many as the kernel has.
func setOffload(fd int) error {
	var err error
	for _, offload := range []int{unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6, unix.TUN_F_CSUM, 0} {
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offload); err == nil {
			return nil
		}
	}
	return fmt.Errorf("set offloads: %w", err)
}

// Available tells whether Open can make a device here, as far as that can be known without making
// one: nil, or an error that matches [ErrUnavailable] and says why.
func Available() error {
	fd, err := openTUN()
	if err != nil {
		return fmt.Errorf("tun: %w", err)
	}
	defer unix.Close(fd)
	// Neither TUN nor TAP: the kernel checks the privilege first and then refuses the kind.
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return fmt.Errorf("tun: %w", err)
	}
	ifr.SetUint16(unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("tun: %w", noPrivilege(err))
	}
	return nil
}
