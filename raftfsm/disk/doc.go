// Package disk is what a node knows of the disk under its data directory: how much room is
// left for pushes, and how long syncs take.
package disk
