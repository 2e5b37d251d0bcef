package main

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsClient is nats.go, its jetstream package: a connection for each producer and consumer, to the node that is named.
type natsClient struct{ spec *loadSpec }

func (c *natsClient) dial(node int) (jetstream.JetStream, error) {
	nc, err := nats.Connect(c.spec.Nodes[node], nats.NoReconnect(), nats.Timeout(10*time.Second))
	if err != nil {
		return nil, err
	}
	return jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(2*c.spec.Depth))
}

func (c *natsClient) producer(node int) (producer, error) {
	js, err := c.dial(node)
	return &natsProducer{js, c.spec.ID, c.spec.Depth}, err
}

// consumer pulls, asking for a few messages ahead; of a wake-up, it is pushed to.
func (c *natsClient) consumer(node, _ int) (consumer, error) {
	js, err := c.dial(node)
	if err != nil {
		return nil, err
	}
	if c.spec.Kind == kindWake {
		k, err := js.PushConsumer(context.Background(), c.spec.ID, natsConsumerName)
		if err != nil {
			return nil, err
		}
		got := make(chan jetstream.Msg) // handed over at once: the handler is the consumer
		_, err = k.Consume(func(m jetstream.Msg) { got <- m })
		return &natsConsumer{func() (jetstream.Msg, error) { return <-got, nil }, false}, err
	}
	k, err := js.Consumer(context.Background(), c.spec.ID, natsConsumerName)
	if err != nil {
		return nil, err
	}
	messages, err := k.Messages(jetstream.PullMaxMessages(c.spec.Prefetch))
	if err != nil {
		return nil, err
	}
	return &natsConsumer{func() (jetstream.Msg, error) { return messages.Next() }, c.spec.Plain}, nil
}

type natsProducer struct {
	js      jetstream.JetStream
	subject string
	depth   int
}

func (p *natsProducer) push(payload []byte) error {
	_, err := p.js.Publish(context.Background(), p.subject, payload)
	return err
}

func (p *natsProducer) pushes(payload func() []byte, done func(begin time.Time)) error {
	type flight struct {
		begin  time.Time
		answer jetstream.PubAckFuture
	}
	flights := make(chan flight, p.depth-2) // full: with what both ends hold, depth are outstanding
	failed := make(chan error, 1)           // the one that ends it
	go func() {                             // ended by an error, or by the process's end
		for f := range flights {
			select {
			case <-f.answer.Ok():
				done(f.begin)
			case err := <-f.answer.Err():
				failed <- err
				return
			}
		}
	}()
	for {
		b, begin := payload(), time.Now()
		a, err := p.js.PublishAsync(p.subject, b)
		if err != nil {
			return err
		}
		select {
		case flights <- flight{begin, a}:
		case err := <-failed:
			return err
		}
	}
}

type natsConsumer struct {
	take  func() (jetstream.Msg, error)
	plain bool
}

func (k *natsConsumer) next() ([]byte, func() error, error) {
	m, err := k.take()
	if err != nil {
		return nil, nil, err
	}
	if k.plain {
		return m.Data(), m.Ack, nil
	}
	return m.Data(), func() error { return m.DoubleAck(context.Background()) }, nil
}
