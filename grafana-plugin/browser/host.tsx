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
function bars(frames: data.DataFrame[], width = 620) {
  const values = data.getFieldDisplayValues({ fieldConfig: { defaults: {}, overrides: [] }, reduceOptions: { values: true, calcs: [] }, replaceVariables: (s: string) => s, theme, data: frames });
  return values.map((v, i) => (
    <ui.BarGauge key={i} theme={theme} width={width} height={36} value={v.display} field={v.field} display={v.view?.getFieldDisplayProcessor(v.colIndex ?? 0)} orientation={data.VizOrientation.Horizontal} displayMode={'gradient' as any} />
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

// Pictures of the committed dashboards: each panel with its own question, at its own place. What @grafana/ui has no
// visualisation for (heat maps, graphs, logs, bar charts) stands as a table of the frames.
const fill = (v: any): any =>
  typeof v === 'string' ? v.replace(/\$(model|view|column|trace)\b/g, (_, n) => ({ model: 'ride_cancel', view: 'driver_stats', column: location.search.includes('kedge-view') ? 'acceptance_rate' : 'wait_minutes', trace: '' })[n as 'model']!)
  : Array.isArray(v) ? v.map(fill) : v && typeof v === 'object' ? Object.fromEntries(Object.entries(v).map(([k, w]) => [k, fill(w)])) : v;

/** Asks Prometheus what its data source would: a range in steps, series named by the legend. */
async function measured(targets: any[]): Promise<data.DataFrame[]> {
  const to = Math.floor(Date.now() / 1000);
  const answers = await Promise.all(
    targets.map(async (t) => {
      const expr = t.expr.replaceAll('$__rate_interval', '30s');
      const res = await fetch(`/prometheus/api/v1/query_range?${new URLSearchParams({ query: expr, start: String(to - 300), end: String(to), step: '5' })}`).then((r) => r.json());
      if (res.status !== 'success') {
        throw new Error(res.error);
      }
      return res.data.result.map((s: any) =>
        data.toDataFrame({
          refId: t.refId,
          fields: [
            { name: 'Time', type: data.FieldType.time, values: s.values.map((v: any) => v[0] * 1000) },
            { name: 'Value', type: data.FieldType.number, labels: s.metric, values: s.values.map((v: any) => (Number.isFinite(Number(v[1])) ? Number(v[1]) : null)), config: { displayNameFromDS: t.legendFormat.replace(/{{(\w+)}}/g, (_: string, l: string) => s.metric[l] ?? '') } },
          ],
        })
      );
    })
  );
  return answers.flat();
}

const GRID = 55;
function Drawn({ ds, panel }: any) {
  const [answer, setAnswer] = React.useState<any>();
  const range = React.useMemo(hour, []);
  React.useEffect(() => {
    const targets = fill(panel.targets);
    if (targets[0].expr) {
      measured(targets).then((frames) => setAnswer({ data: frames }), (error) => setAnswer({ error }));
      return undefined;
    }
    const sub = ds
      .query({ requestId: String(panel.id), targets, range, interval: '15s', intervalMs: 15000, maxDataPoints: 600, scopedVars: {}, timezone: 'utc', app: 'dashboard', startTime: Date.now() })
      .subscribe({ next: setAnswer, error: (error: any) => setAnswer({ error }) });
    return () => sub.unsubscribe();
  }, [ds, panel]);
  const error = answer?.error ?? answer?.errors?.[0];
  const { defaults } = panel.fieldConfig;
  const frames: any[] | undefined =
    answer?.data &&
    data.applyFieldOverrides({
      data: answer.data.map((f: any) => data.toDataFrame(f)).filter((f: any) => f.meta?.dataTopic !== 'annotations').map((f: any) => ({ ...f, fields: f.fields.map((x: any) => ({ ...x, config: { ...standard, ...Object.fromEntries(Object.entries(defaults).filter(([, v]) => v)), ...x.config, custom: { ...custom, ...defaults.custom, ...x.config?.custom } } })) })),
      fieldConfig: { defaults: {}, overrides: [] }, replaceVariables: (s: string) => s, theme, timeZone: 'utc',
    });
  for (const o of panel.fieldConfig.overrides) { // of which dashboards set widths alone
    const matches = data.fieldMatchers.get(o.matcher.id).get(o.matcher.options);
    frames?.forEach((f: any) => f.fields.filter((x: any) => matches(x, f, frames)).forEach((x: any) => { x.config.custom.width = o.properties[0].value; }));
  }
  const { w, h, x, y } = panel.gridPos;
  const [width, height] = [w * GRID - 24, h * 34 - 56];
  const rows = frames?.reduce((n: number, f: any) => n + f.length, 0) ?? 0;
  const organize = panel.transformations?.find((t: any) => t.id === 'organize')?.options;
  const arranged = (f: any) => !organize ? f : { ...f, fields: [...f.fields].filter((c: any) => !organize.excludeByName[c.name]).sort((a: any, b: any) => (organize.indexByName[a.name] ?? 99) - (organize.indexByName[b.name] ?? 99)) };
  const draw = () => {
    if (rows === 0) return <p>No data</p>;
    if (panel.type === 'timeseries') return <ui.TimeSeries frames={frames!} timeRange={panel.targets[0].expr ? { ...range, from: data.dateTime(range.to.valueOf() - 300_000) } : range} timeZone="utc" width={width} height={height} legend={{ ...legend, ...panel.options?.legend }} options={{}} />;
    if (panel.type === 'bargauge' || panel.type === 'stat') return bars(frames!, width);
    return <ui.Table data={arranged(frames![0])} width={width} height={height} />;
  };
  return (
    <div data-panel={panel.title} data-state={error ? 'error' : frames ? 'done' : 'loading'} data-rows={rows} style={{ position: 'absolute', left: x * GRID, top: y * 34, width: w * GRID - 8, height: h * 34 - 8, overflow: 'hidden', background: theme.colors.background.primary, padding: 8 }}>
      <h6>{fill(panel.title)}</h6>
      {error && <ui.Alert title={String(error.message ?? error.data?.message ?? JSON.stringify(error))} />}
      {frames && !error && draw()}
    </div>
  );
}

function Dashboard({ ds, uid }: any) {
  const [board, setBoard] = React.useState<any>();
  React.useEffect(() => void fetch(`/dashboards/${uid}.json`).then((r) => r.json()).then(setBoard), [uid]);
  return (
    <div style={{ position: 'relative', width: 24 * GRID, height: 34 * Math.max(0, ...(board?.panels ?? []).map((p: any) => p.gridPos.y + p.gridPos.h)) }}>
      {board?.panels.map((p: any) => (p.type === 'row' ? <h5 key={p.id} style={{ position: 'absolute', top: p.gridPos.y * 34 }}>{fill(p.title)}</h5> : <Drawn key={p.id} ds={ds} panel={p} />))}
    </div>
  );
}

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
    dashboard: <Dashboard ds={ds} uid={new URLSearchParams(location.search).get('uid')} />,
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
