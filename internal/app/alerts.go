package app

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/kedge-ml/kedge/alerts"
	"github.com/kedge-ml/kedge/alerts/push"
	"github.com/kedge-ml/kedge/query"
)

// AlertsConfig says who is told of alerts beside the alerts topic.
type AlertsConfig struct {
	Every             Duration `yaml:"every"`         // between two looks at the rules
	Alertmanagers     []string `yaml:"alertmanagers"` // base addresses; all of them are told
	AlertmanagerToken Secret   `yaml:"alertmanager_token"`
	Webhooks          []string `yaml:"webhooks"` // addresses that get one POST for each beginning and end
	WebhookToken      Secret   `yaml:"webhook_token"`
	CAFile            string   `yaml:"ca_file"` // authorities of the receivers; empty: the system's
	Links             string   `yaml:"links"`   // address of a Grafana, for links in alerts
}

func (c *Config) checkAlerts(f *faults) {
	a := &c.Alerts
	f.check(a.Every >= Duration(time.Second), "alerts.every: want at least 1s")
	for member, list := range map[string][]string{"alertmanagers": a.Alertmanagers, "webhooks": a.Webhooks, "links": {a.Links}} {
		for _, address := range list {
			if address == "" && member == "links" {
				continue
			}
			u, err := url.Parse(address)
			f.check(err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https"), "alerts.%s: want addresses such as http://host:9093", member)
			f.check(err != nil || u.User == nil, "alerts.%s: holds a user or a password: give a token as alertmanager_token or webhook_token, e.g. file:/run/secrets/token", member)
		}
	}
}

// alertsGroup is the group whose member tells of alerts.
const alertsGroup = "kedge.leases.alerts"

// openAlerts prepares the telling of alerts where this process has the role
// drift and somebody wants to be told.
func (a *App) openAlerts(context.Context) (err error) {
	c := &a.cfg.Alerts
	if !a.hasRole("drift") || len(c.Alertmanagers)+len(c.Webhooks) == 0 {
		return nil
	}
	var receivers []push.Receiver
	for _, u := range c.Alertmanagers {
		receivers = append(receivers, push.Receiver{URL: u, Token: string(c.AlertmanagerToken)})
	}
	for _, u := range c.Webhooks {
		receivers = append(receivers, push.Receiver{URL: u, Token: string(c.WebhookToken), Webhook: true})
	}
	var rules []alerts.Rule
	for _, g := range alerts.All() {
		rules = append(rules, g.Rules...)
	}
	cfg := push.Config{Rules: rules, Receivers: receivers, Every: time.Duration(c.Every), Namespace: a.cfg.Namespace, Links: c.Links,
		File: a.dir.Sub("alerts.json"), Ask: a.askForAlerts(), Scope: a.tel.Scope("alerts")}
	to := a.cfg.outbound(0, slices.Concat(c.Alertmanagers, c.Webhooks)...)
	if c.CAFile != "" {
		if to.TLS, err = authorities(c.CAFile); err != nil {
			return fmt.Errorf("alerts.ca_file: %w", err)
		}
	}
	cfg.Client = to.Client()
	a.pusher, err = push.New(cfg)
	return err
}

func authorities(file string) (*tls.Config, error) {
	t := KafkaTLS{CAFile: file}
	return t.config()
}

// askForAlerts answers the rules' questions in this process, as nobody but
// Kedge itself.
func (a *App) askForAlerts() func(context.Context, query.Request) ([]query.Frame, error) {
	kinds := a.kinds()
	return func(ctx context.Context, r query.Request) ([]query.Frame, error) {
		f := kinds[r.Kind]
		if f == nil {
			return nil, push.ErrUnasked
		}
		r.Namespace = a.cfg.Namespace
		ctx, cancel := context.WithTimeout(ctx, time.Duration(a.cfg.HTTP.QueryTimeout))
		defer cancel()
		return f(ctx, r)
	}
}

// runAlerts tells while this process holds the lease.
func (a *App) runAlerts(ctx context.Context) error {
	return a.client.HoldLease(ctx, alertsGroup, LeasesTopic, func(ctx context.Context) { a.pusher.Run(ctx) })
}
