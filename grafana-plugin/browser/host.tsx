// A page that hosts the built plugin as Grafana does: the AMD module gets the
// real @grafana packages, and what it asks goes to the plugin's own backend.
// browser/drive.mjs walks through it; /api is served by the test.
import * as React from 'react';
import * as ReactDOM from 'react-dom';
import { createRoot } from 'react-dom/client';
import * as rxjs from 'rxjs';
import * as data from '@grafana/data';
import * as runtime from '@grafana/runtime';
import * as ui from '@grafana/ui';

const modules: Record<string, unknown> = { react: React, 'react-dom': ReactDOM, rxjs, '@grafana/data': data, '@grafana/runtime': runtime, '@grafana/ui': ui };
const UID = 'kedge';
const settings: any = { id: 1, uid: UID, type: 'kedgeml-kedge-datasource', name: 'Kedge', url: 'http://127.0.0.1:7070', access: 'proxy', jsonData: {}, meta: { id: 'kedgeml-kedge-datasource', info: {} }, readOnly: false };

async function send(o: any) {
  const res = await fetch(o.url.startsWith('/') ? o.url : `/${o.url}`, { method: o.method ?? 'GET', body: o.data ? JSON.stringify(o.data) : undefined, headers: { 'Content-Type': 'application/json' } });
  const body = await res.json().catch(() => undefined);
  if (!res.ok) {
    throw { status: res.status, data: body };
  }
  return { data: body, status: res.status, ok: true, headers: res.headers, config: o };
}

const backend: any = {
  fetch: (o: any) => rxjs.from(send(o)),
  get: async (url: string) => (await send({ url })).data,
  post: async (url: string, d: unknown) => (await send({ url, method: 'POST', data: d })).data,
};
runtime.setBackendSrv(backend);
runtime.setTemplateSrv({ getVariables: () => [], replace: (s: string) => s ?? '', containsTemplate: () => false, updateTimeRange: () => {} } as any);
runtime.setDataSourceSrv({ get: async () => undefined, getList: () => [], getInstanceSettings: () => settings } as any);
Object.assign(runtime.config, { datasources: {}, featureToggles: runtime.config.featureToggles ?? {} });

// The code editor's workers are no part of this page: one that never answers will do.
(window as any).MonacoEnvironment = { getWorker: () => new Worker(URL.createObjectURL(new Blob(['']))) };

/** Loads dist/module.js: `define` is all that Grafana's loader gives it. */
function load(): Promise<any> {
  return new Promise((resolve, reject) => {
    (window as any).define = (deps: string[], factory: (...a: unknown[]) => any) => {
      const missing = deps.filter((d) => !(d in modules));
      if (missing.length > 0) {
        reject(new Error(`the module asks for ${missing.join(', ')}, which this host does not give`));
        return;
      }
      resolve(factory(...deps.map((d) => modules[d])));
    };
    const s = document.createElement('script');
    s.src = '/plugin/module.js';
    s.onerror = () => reject(new Error('module.js cannot be loaded'));
    document.head.append(s);
  });
}

const theme = data.createTheme({ colors: { mode: location.search.includes('light') ? 'light' : 'dark' } });
const hour = (): data.TimeRange => {
  const to = data.dateTime();
  const from = data.dateTime(to.valueOf() - 30 * 60 * 1000);
  return { from, to, raw: { from: 'now-30m', to: 'now' } };
};

const standard = { color: { mode: 'palette-classic' }, thresholds: { mode: 'absolute', steps: [{ value: -Infinity, color: 'green' }] } };
const custom = { drawStyle: 'line', lineWidth: 1, fillOpacity: 8, showPoints: 'never', axisPlacement: 'auto', thresholdsStyle: { mode: 'off' } };

/** What a panel does with an answer: its own defaults where the frame says nothing, then overrides and processors. */
function prepared(frames: data.DataFrame[]) {
  for (const f of frames) {
    for (const field of f.fields) {
      field.config = { ...(standard as any), ...field.config, custom: { ...custom, ...field.config?.custom } };
    }
  }
  return data.applyFieldOverrides({ data: frames, fieldConfig: { defaults: {}, overrides: [] }, replaceVariables: (s: string) => s, theme, timeZone: 'utc' });
}

function useAnswer(ds: any, query: any) {
  const [state, setState] = React.useState<any>();
  React.useEffect(() => {
    const range = hour();
    const sub = ds
      .query({ requestId: 'r', targets: [{ refId: 'A', ...query }], range, interval: '15s', intervalMs: 15000, maxDataPoints: 600, scopedVars: {}, timezone: 'utc', app: 'panel-editor', startTime: Date.now() })
      .subscribe((a: any) => setState({ ...a, range }));
    return () => sub.unsubscribe();
  }, [ds, JSON.stringify(query)]);
  return state;
}

function Panel({ ds, title, query, draw }: any) {
  const answer = useAnswer(ds, query);
  const frames = answer?.data ? prepared(answer.data.map((f: any) => data.toDataFrame(f))) : undefined;
  const error = answer?.error ?? answer?.errors?.[0];
  return (
    <div data-panel={query.kind} data-state={error ? 'error' : frames ? 'done' : 'loading'} data-rows={frames?.[0]?.length ?? 0} style={{ background: theme.colors.background.primary, padding: 8, margin: 8, width: 640 }}>
      <h5>{title}</h5>
      {error && <ui.Alert title={String(error.message ?? error.data?.message ?? JSON.stringify(error))} />}
      {frames && !error && draw(frames, answer.range)}
    </div>
  );
}

const legend = { displayMode: 'list', placement: 'bottom', showLegend: true, calcs: [] } as any;
const lines = (frames: data.DataFrame[], range: data.TimeRange) => <ui.TimeSeries frames={frames} timeRange={range} timeZone="utc" width={620} height={240} legend={legend} options={{}} />;
const table = (frames: data.DataFrame[]) => <ui.Table data={frames[0]} width={620} height={240} />;
const either = (frames: data.DataFrame[], range: data.TimeRange) => (frames[0].fields.some((f) => f.type === data.FieldType.time) ? lines(frames, range) : table(frames));
function bars(frames: data.DataFrame[]) {
  const values = data.getFieldDisplayValues({ fieldConfig: { defaults: {}, overrides: [] }, reduceOptions: { values: true, calcs: [] }, replaceVariables: (s: string) => s, theme, data: frames });
  return values.map((v, i) => (
    <ui.BarGauge key={i} theme={theme} width={620} height={36} value={v.display} field={v.field} display={v.view?.getFieldDisplayProcessor(v.colIndex ?? 0)} orientation={data.VizOrientation.Horizontal} displayMode={'gradient' as any} />
  ));
}

const PANELS = [
  { title: 'Rows a second', query: { kind: 'throughput' }, draw: lines },
  { title: 'Ingest lag', query: { kind: 'ingest_lag' }, draw: lines },
  { title: 'Two columns of driver_stats', query: { kind: 'summary', view: 'driver_stats', columns: ['acceptance_rate', 'conversion_rate'], values: ['mean', 'p95'] }, draw: lines },
  { title: 'Predictions a second', query: { kind: 'serving_throughput', model: 'ride_cancel' }, draw: lines },
  { title: 'Latency', query: { kind: 'serving_latency', model: 'ride_cancel' }, draw: lines },
  { title: 'Newest predictions', query: { kind: 'rows', model: 'ride_cancel', columns: ['event_time', 'id', 'version', 'score', 'trace_id'], limit: 40 }, draw: table },
  { title: 'Freshness', query: { kind: 'freshness', values: ['seconds'] }, draw: bars },
  { title: 'Ledger', query: { kind: 'ledger' }, draw: table },
  { title: 'Models and views', query: { kind: 'catalog' }, draw: table },
];

function Config({ Editor }: any) {
  const [options, setOptions] = React.useState<any>({ ...settings, jsonData: { traceUrl: 'https://traces.example/trace/${__value.raw}' }, secureJsonFields: {}, secureJsonData: {} });
  return (
    <div data-page="config" style={{ padding: 16, maxWidth: 900 }}>
      <Editor options={options} onOptionsChange={setOptions} />
      <pre data-options="">{JSON.stringify({ jsonData: options.jsonData, secure: Object.keys(options.secureJsonData ?? {}) })}</pre>
    </div>
  );
}

function Query({ ds, Editor }: any) {
  const [query, setQuery] = React.useState<any>({ refId: 'A', ...ds.getDefaultQuery() });
  const { refId, ...asked } = query;
  return (
    <div data-page="query" style={{ padding: 16, minHeight: 700 }}>
      <Editor datasource={ds} query={query} onChange={setQuery} onRunQuery={() => {}} />
      <pre data-query="">{JSON.stringify(query)}</pre>
      <Panel ds={ds} title="What it draws" query={asked} draw={either} />
    </div>
  );
}

function Page({ plugin, ds }: any) {
  const parts: Record<string, React.ReactNode> = {
    config: <Config Editor={plugin.components.ConfigEditor} />,
    query: <Query ds={ds} Editor={plugin.components.QueryEditor} />,
    panels: <div style={{ display: 'flex', flexWrap: 'wrap' }}>{PANELS.map((p) => <Panel key={p.title} ds={ds} {...p} />)}</div>,
  };
  return <>{parts[new URLSearchParams(location.search).get('page') ?? 'panels']}</>;
}

load()
  .then(({ plugin }) => {
    const ds = new plugin.DataSourceClass(settings);
    document.body.style.background = theme.colors.background.canvas;
    document.body.style.color = theme.colors.text.primary;
    createRoot(document.getElementById('root')!).render(
      <data.ThemeContext.Provider value={theme}>
        <ui.GlobalStyles />
        <ui.PortalContainer />
        <Page plugin={plugin} ds={ds} />
      </data.ThemeContext.Provider>
    );
  })
  .catch((e) => {
    document.getElementById('root')!.textContent = String(e);
    throw e;
  });
