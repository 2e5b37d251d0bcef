package main

import (
	"context"
	"encoding/json"
	"fmt"

	"pogod/internal/link"
)

// pogodClient speaks the link, as PHP does: one call outstanding on a connection.
type pogodClient struct{ spec *loadSpec }

func (c *pogodClient) producer(node int) (producer, error) {
	l, err := link.Dial(context.Background(), c.spec.Nodes[node], link.RoleTool, "peers")
	return &pogodProducer{l, c.spec.ID, nil}, err
}

func (c *pogodClient) consumer(node, i int) (consumer, error) {
	l, err := link.Dial(context.Background(), c.spec.Nodes[node], link.RoleWorker, c.spec.ID)
	return &pogodConsumer{l, c.spec.ID, int64(i)}, err
}

type pogodProducer struct {
	*link.Client
	queue string
	buf   []byte
}

func (p *pogodProducer) push(payload []byte) error {
	code, body, err := p.Call(link.Request(p.buf, link.Push).String(p.queue).Bytes(payload).Int(0))
	if err == nil && code != 1 {
		err = fmt.Errorf("code %d: %s", code, body)
	}
	return err
}

type pogodConsumer struct {
	*link.Client
	worker string
	slot   int64
}

func (k *pogodConsumer) next() ([]byte, func() error, error) {
	code, body, err := k.Call(link.Request(nil, link.Next).String(k.worker).Int(k.slot))
	if err != nil {
		return nil, nil, err
	}
	_, message, err := link.ParseDelivery(body)
	if err != nil || code != 1 {
		return nil, nil, fmt.Errorf("next: code %d: %q: %w", code, body, err)
	}
	var d struct{ ID, Queue, Payload string }
	if err := json.Unmarshal(message, &d); err != nil {
		return nil, nil, err
	}
	return []byte(d.Payload), func() error {
		code, body, err := k.Call(link.Request(nil, link.Ack).String(d.Queue).String(d.ID))
		if err == nil && code != 1 {
			err = fmt.Errorf("ack: code %d: %s", code, body)
		}
		return err
	}, nil
}
