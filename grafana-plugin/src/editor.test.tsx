import { configure, render, screen, waitFor } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { setTemplateSrv } from '@grafana/runtime';
import React from 'react';
import { column, segments, subjects, versions } from './catalog';
import { ConfigEditor } from './components/ConfigEditor';
import { kindOptions, parseSubject, QueryEditor, switchKind } from './components/QueryEditor';
import { expand, KedgeDataSource } from './datasource';
import { KedgeQuery, Kind, VariableQuery, WireFrame } from './types';

configure({ asyncUtilTimeout: 30000 });

const KINDS: Kind[] = [
  { name: 'throughput', title: 'Throughput', help: 'rows a second', group: 'Pipeline', subject: 'none', reads: ['step', 'group_by'], frame: 'timeseries-wide' },
  { name: 'summary', title: 'Summary', help: 'numbers', group: 'Data', subject: 'either', reads: ['columns', 'step', 'version'], frame: 'timeseries-multi' },
  { name: 'freshness', title: 'Freshness', help: 'age', group: 'Data', subject: 'optional', reads: null, frame: 'numeric-long' },
];
// As a running Kedge answers.
const CATALOG: WireFrame[] = [
  {
    name: 'catalog',
    columns: [
      { name: 'namespace', values: ['default', 'default'] },
      { name: 'kind', values: ['view', 'model'] },
      { name: 'name', values: ['driver', 'fraud'] },
      { name: 'owner', values: ['', 'risk'] },
      { name: 'versions', values: ['', '1, 2'] },
    ],
  },
];
const FRAUD: WireFrame[] = [{ name: 'fraud', columns: [{ name: 'column', values: ['card', 'amount', 'age', 'region'] }, { name: 'type', values: ['Int64', 'Float64', 'Int64', 'String'] }, { name: 'role', values: ['key', 'value', 'value', 'value'] }] }];

/** The Kedge behind the data source, as its backend answers the editor. */
function datasource(fail = false) {
  const ds = Object.create(KedgeDataSource.prototype) as KedgeDataSource;
  Object.assign(ds, {
    known: new Map(),
    getResource: () => (fail ? Promise.reject({ data: { message: 'Cannot reach Kedge' } }) : Promise.resolve(KINDS)),
    postResource: (_: string, ask: { model?: string }) => Promise.resolve({ frames: ask.model ? FRAUD : CATALOG }),
  });
  return ds;
}

function Editor({ ds, initial, seen }: { ds: KedgeDataSource; initial: KedgeQuery; seen: (q: KedgeQuery) => void }) {
  const [query, setQuery] = React.useState(initial);
  const change = (q: KedgeQuery) => {
    seen(q);
    setQuery(q);
  };
  return <QueryEditor datasource={ds} query={query} onChange={change} onRunQuery={() => {}} />;
}

describe('switchKind', () => {
  it('drops what the new kind does not read', () => {
    const q: KedgeQuery = { refId: 'A', kind: 'summary', model: 'fraud', columns: ['amount'], step: '1m', version: '2' };
    expect(switchKind(q, KINDS[0])).toEqual({ refId: 'A', kind: 'throughput', step: '1m' });
    expect(switchKind({ ...q, params: { labels: true }, max_points: 5 }, KINDS[1])).toEqual({ ...q, values: ['mean'] });
  });
  it('names a subject where one is needed', () => {
    const q: KedgeQuery = { refId: 'A', kind: 'throughput' };
    const known = subjects(CATALOG);
    expect(switchKind(q, KINDS[1], known)).toMatchObject({ view: 'driver' });
    expect(switchKind(q, { ...KINDS[1], subject: 'model' }, known)).toMatchObject({ model: 'fraud' });
    expect(switchKind({ ...q, model: 'fraud' }, KINDS[1], known).view).toBeUndefined();
    expect(switchKind(q, KINDS[2], known)).toEqual({ refId: 'A', kind: 'freshness' });
  });
});

describe('parseSubject', () => {
  it('reads choices and names typed by hand', () => {
    expect(parseSubject('view:driver', KINDS[1])).toEqual({ view: 'driver', model: undefined });
    expect(parseSubject('$model', KINDS[1])).toEqual({ model: '$model', view: undefined });
    expect(parseSubject(undefined, KINDS[2])).toEqual({ model: undefined, view: undefined });
  });
});

describe('catalogue', () => {
  it('reads frames by name', () => {
    expect(subjects(CATALOG)).toEqual([
      { subject: 'view', name: 'driver', description: '' },
      { subject: 'model', name: 'fraud', description: 'risk' },
    ]);
    expect(column(FRAUD, 'nothing')).toEqual([]);
    expect(segments(FRAUD)).toEqual(['region']);
    expect(versions(CATALOG, 'fraud')).toEqual(['1', '2']);
    expect(versions(CATALOG, 'driver')).toEqual([]);
  });
  it('groups kinds', () => {
    expect(kindOptions(KINDS).map((g) => [g.label, (g as { options: unknown[] }).options.length])).toEqual([['Pipeline', 1], ['Data', 2]]);
  });
});

describe('variables', () => {
  it('are listed from the catalogue', async () => {
    const list = async (q: Partial<VariableQuery>) => (await datasource().metricFindQuery({ refId: 'v', list: 'models', ...q })).map((v) => v.text);
    setTemplateSrv({ replace: (s: string) => s } as never);
    expect(await list({ list: 'namespaces' })).toEqual(['default']);
    expect(await list({ list: 'segments', model: 'fraud' })).toEqual(['region']);
    expect(await list({ list: 'columns', model: 'fraud' })).toEqual(['amount', 'age', 'region']);
    expect(await list({ list: 'detectors' })).toContain('missing_rate');
  });
  it('of several values become several questions, columns and detectors', () => {
    const chosen: Record<string, string> = { $model: '["fraud","churn"]', $view: '"driver"', $detector: '["ks","chi2"]', $column: '["a","b"]' };
    setTemplateSrv({ replace: (s: string) => chosen[s] ?? s } as never);
    const ds = datasource();
    const asked = (q: Partial<KedgeQuery>) => ds.applyTemplateVariables({ refId: 'A', ...q }, {});
    expect(asked({ model: '$model', columns: ['$column'], detector: '$detector' })).toMatchObject({ model: 'fraud', models: ['fraud', 'churn'], columns: ['a', 'b'], detector: 'ks,chi2' });
    expect(asked({ view: '$view' })).toMatchObject({ view: 'driver' });
    expect(asked({ view: '$view' }).views).toBeUndefined();
    expect(asked({}).model).toBeUndefined();
  });
});

describe('expand', () => {
  it('turns a variable of several values into several columns', () => {
    expect(expand('["a","b"]')).toEqual(['a', 'b']);
    expect(expand('"a"')).toEqual(['a']);
    expect(expand('plain')).toEqual(['plain']);
    expect(expand('[odd')).toEqual(['[odd']);
  });
});

describe('QueryEditor', () => {
  it('walks from kind to model to column', async () => {
    const seen = jest.fn();
    render(<Editor ds={datasource()} initial={{ refId: 'A', kind: 'throughput' }} seen={seen} />);
    const user = userEvent.setup();
    await user.click(await screen.findByLabelText('Kind'));
    await user.click(await screen.findByText('Summary'));
    expect(seen).toHaveBeenLastCalledWith(expect.objectContaining({ kind: 'summary' }));
    await user.click(await screen.findByLabelText('Subject'));
    await user.click(await screen.findByText('fraud'));
    expect(seen).toHaveBeenLastCalledWith(expect.objectContaining({ kind: 'summary', model: 'fraud' }));
    await waitFor(async () => {
      await user.click(screen.getByLabelText('Columns'));
      expect(screen.getByText('amount')).toBeInTheDocument();
    });
    await user.click(screen.getByText('amount'));
    expect(seen).toHaveBeenLastCalledWith(expect.objectContaining({ columns: ['amount'] }));
  });
  it.each([
    ['version', 'Version', '2{enter}', '2'],
    ['columns', 'Columns', 'amount{enter}', ['amount']],
    ['group_by', 'Group by', 'region{enter}', ['region']],
    ['detector', 'Detector', 'chi{enter}', 'chi2'],
    ['step', 'Step', '1h{tab}', '1h'],
    ['limit', 'Limit', '7{tab}', 7],
  ])('sets %s where the kind reads it, and nowhere else', async (member, label, typed, want) => {
    const seen = jest.fn();
    const reading: Kind = { name: 'reading', title: 'Reading', help: '', group: 'A', subject: 'model', reads: [member], frame: 'table' };
    const ds = datasource();
    Object.assign(ds, { getResource: () => Promise.resolve([reading, { ...reading, name: 'deaf', title: 'Deaf', reads: null }]) });
    const { unmount } = render(<Editor ds={ds} initial={{ refId: 'A', kind: 'reading', model: 'fraud' }} seen={seen} />);
    await userEvent.setup().type(await screen.findByLabelText(label), typed);
    expect(seen).toHaveBeenLastCalledWith(expect.objectContaining({ kind: 'reading', model: 'fraud', [member]: want }));
    unmount();
    render(<Editor ds={ds} initial={{ refId: 'A', kind: 'deaf', model: 'fraud' }} seen={seen} />);
    await screen.findByText('Deaf');
    expect(screen.queryByLabelText(label)).toBeNull();
  });
  it('says when the catalogue cannot be read', async () => {
    render(<Editor ds={datasource(true)} initial={{ refId: 'A' }} seen={() => {}} />);
    expect(await screen.findByText('Cannot reach Kedge')).toBeInTheDocument();
  });
});

describe('ConfigEditor', () => {
  it('keeps the key out of jsonData', async () => {
    const onOptionsChange = jest.fn();
    const options = { url: '', jsonData: {}, secureJsonFields: {}, secureJsonData: {}, access: 'proxy' } as never;
    render(<ConfigEditor options={options} onOptionsChange={onOptionsChange} />);
    await userEvent.setup().type(screen.getByLabelText('API key'), 'k');
    const last = onOptionsChange.mock.calls.at(-1)[0];
    expect(last.secureJsonData).toEqual({ apiKey: 'k' });
    expect(JSON.stringify(last.jsonData)).not.toContain('k');
  });
});

describe('filters of a dashboard', () => {
  it('offers what the catalogue knows', async () => {
    const ds = datasource();
    expect((await ds.getTagKeys()).map((k) => k.text)).toContain('model');
    expect(await ds.getTagValues({ key: 'model' })).toEqual([{ text: 'fraud' }]);
    expect(await ds.getTagValues({ key: 'version' })).toEqual([{ text: '1' }, { text: '2' }]);
    expect(await ds.getTagValues({ key: 'column' })).toEqual(expect.arrayContaining([{ text: 'amount' }]));
    expect(await ds.getTagValues({ key: 'odd' })).toEqual([]);
  });
});
