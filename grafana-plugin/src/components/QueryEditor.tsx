import React, { useEffect, useState } from 'react';
import { QueryEditorProps, SelectableValue } from '@grafana/data';
import { Alert, CodeEditor, InlineField, InlineFieldRow, InlineSwitch, Input, MultiSelect, Select } from '@grafana/ui';
import { column, subjects, versions } from '../catalog';
import { KedgeDataSource } from '../datasource';
import { DEFAULT_QUERY, DETECTORS, KedgeOptions, KedgeQuery, Kind, MEMBERS, Subject, WireFrame } from '../types';
import { Pairs } from './Pairs';

type Props = QueryEditorProps<KedgeDataSource, KedgeQuery, KedgeOptions>;
type Option = SelectableValue<string>;

const VALUES = ['count', 'null_share', 'mean', 'stddev', 'min', 'max', 'p01', 'p05', 'p25', 'p50', 'p75', 'p95', 'p99', 'effect', 'floor', 'rows', 'missing'];

const option = (value: string): Option => ({ value, label: value });

/** Options of the kind select, under their headings. */
export function kindOptions(kinds: Kind[]): Array<SelectableValue<string>> {
  const groups = [...new Set(kinds.map((k) => k.group))];
  return groups.map((label) => ({
    label,
    options: kinds.filter((k) => k.group === label).map((k) => ({ value: k.name, label: k.title, description: k.help })),
  }));
}

/**
 * What a query keeps when its kind changes: only what the new kind reads. A kind
 * that needs a subject gets the first known one, so that something is drawn at once.
 */
export function switchKind(q: KedgeQuery, kind: Kind, known: Subject[] = []): KedgeQuery {
  const next: KedgeQuery = { ...q, kind: kind.name };
  for (const m of MEMBERS) {
    if (!kind.reads?.includes(m)) { // values too belong to one kind
      delete next[m];
    }
  }
  if (kind.subject === 'none' || kind.subject === 'model') {
    delete next.view;
  }
  if (kind.subject === 'none' || kind.subject === 'view') {
    delete next.model;
  }
  const first = known.find((s) => kind.subject === 'either' || kind.subject === s.subject);
  if (first && !next.view && !next.model) {
    next[first.subject] = first.name;
  }
  if (kind.name === 'summary') {
    next.values = ['mean']; // twelve lines of different units are no first picture
  }
  return next;
}

/** Answers and error of a promise, without a state update after unmounting. */
function useAsk<T>(ask: () => Promise<T>, key: string): [T | undefined, string | undefined] {
  const [state, setState] = useState<{ key: string; value?: T; error?: string }>({ key });
  useEffect(() => {
    let live = true;
    ask().then(
      (value) => live && setState({ key, value }),
      (e) => live && setState({ key, error: e?.data?.message ?? e?.message ?? String(e) })
    );
    return () => {
      live = false;
    };
    // eslint-disable-next-line react-hooks/exhaustive-deps -- key stands for what ask reads
  }, [key]);
  return [state.key === key ? state.value : undefined, state.key === key ? state.error : undefined];
}

export function QueryEditor({ datasource, query: stored, onChange, onRunQuery }: Props) {
  const query = { ...DEFAULT_QUERY, ...stored };
  const [kinds, kindsError] = useAsk(() => datasource.kinds(), 'kinds');
  const [all, allError] = useAsk(() => datasource.catalog(), 'catalog');
  const subject = `${query.view ?? ''}\n${query.model ?? ''}`;
  const [one] = useAsk<WireFrame[]>(
    () => (query.view || query.model ? datasource.catalog({ view: query.view, model: query.model }) : Promise.resolve([])),
    subject
  );
  const kind = kinds?.find((k) => k.name === query.kind);
  const apply = (part: Partial<KedgeQuery>) => {
    onChange({ ...query, ...part });
    onRunQuery();
  };
  const error = kindsError ?? allError;
  return (
    <>
      {error && (
        <Alert severity="warning" title="The catalogue cannot be read">
          {error}
        </Alert>
      )}
      <InlineFieldRow>
        <InlineField label="Show" labelWidth={12} tooltip={kind?.help}>
          <Select
            aria-label="Kind"
            width={30}
            options={kindOptions(kinds ?? [])}
            value={kind ? { value: kind.name, label: kind.title } : query.kind}
            isLoading={!kinds && !kindsError}
            onChange={(v) => {
              const next = kinds?.find((k) => k.name === v.value);
              if (next) {
                onChange(switchKind(query, next, subjects(all ?? [])));
                onRunQuery();
              }
            }}
          />
        </InlineField>
        <SubjectField kind={kind} query={query} all={all ?? []} apply={apply} />
        <InlineSwitch label="JSON" showLabel aria-label="JSON" value={Boolean(query.code)} onChange={(e) => onChange({ ...query, code: e.currentTarget.checked })} />
      </InlineFieldRow>
      {query.code ? <Code query={query} apply={apply} /> : kind && <Members kind={kind} query={query} all={all ?? []} one={one ?? []} apply={apply} />}
    </>
  );
}

interface Part {
  query: KedgeQuery;
  apply: (part: Partial<KedgeQuery>) => void;
}

function SubjectField({ kind, query, all, apply }: Part & { kind?: Kind; all: WireFrame[] }) {
  if (!kind || kind.subject === 'none') {
    return null;
  }
  const wanted = (s: string) => kind.subject === 'either' || kind.subject === 'optional' || kind.subject === s;
  const known = subjects(all).filter((s) => wanted(s.subject));
  const options = known.map((s) => ({ value: `${s.subject}:${s.name}`, label: s.name, description: s.description || s.subject }));
  const value = query.model ? `model:${query.model}` : query.view ? `view:${query.view}` : undefined;
  const name = query.model ?? query.view;
  return (
    <InlineField label={kind.subject === 'view' ? 'View' : kind.subject === 'model' ? 'Model' : 'Model or view'} labelWidth={16}>
      <Select
        aria-label="Subject"
        width={30}
        options={options}
        value={value ? { value, label: name } : null}
        isClearable={kind.subject === 'optional'}
        allowCustomValue
        placeholder="choose"
        onChange={(v) => apply(parseSubject(v?.value, kind))}
      />
    </InlineField>
  );
}

/** Reads "model:fraud"; a name typed by hand (a variable, say) goes where the kind wants it. */
export function parseSubject(value: string | undefined, kind: Kind): Partial<KedgeQuery> {
  if (!value) {
    return { view: undefined, model: undefined };
  }
  if (value.startsWith('view:')) {
    return { view: value.slice(5), model: undefined };
  }
  if (value.startsWith('model:')) {
    return { model: value.slice(6), view: undefined };
  }
  return kind.subject === 'view' ? { view: value, model: undefined } : { model: value, view: undefined };
}

function Members({ kind, query, all, one, apply }: Part & { kind: Kind; all: WireFrame[]; one: WireFrame[] }) {
  const reads = (m: string) => kind.reads?.includes(m);
  const columns = column(one, 'column').map(option);
  const values = (list: Option[]) => list.map((o) => o.value ?? '').filter(Boolean);
  return (
    <>
      <InlineFieldRow>
        {reads('version') && (
          <InlineField label="Version" labelWidth={12} tooltip="Empty means every version.">
            <Select aria-label="Version" width={20} isClearable allowCustomValue options={versions(all, query.model).map(option)} value={query.version ? option(query.version) : null} onChange={(v) => apply({ version: v?.value })} />
          </InlineField>
        )}
        {reads('columns') && (
          <InlineField label="Columns" labelWidth={12} tooltip="Empty means all.">
            <MultiSelect aria-label="Columns" width={40} allowCustomValue options={columns} value={(query.columns ?? []).map(option)} onChange={(v) => apply({ columns: values(v) })} />
          </InlineField>
        )}
        {reads('group_by') && (
          <InlineField label="Group by" labelWidth={12}>
            <MultiSelect aria-label="Group by" width={30} allowCustomValue options={columns} value={(query.group_by ?? []).map(option)} onChange={(v) => apply({ group_by: values(v) })} />
          </InlineField>
        )}
        {reads('detector') && (
          <InlineField label="Detector" labelWidth={12} tooltip="Empty means the monitor's own choice.">
            <MultiSelect aria-label="Detector" width={30} allowCustomValue options={DETECTORS.map(option)} value={(query.detector?.split(',') ?? []).map(option)} placeholder="own choice" onChange={(v) => apply({ detector: values(v).join(',') || undefined })} />
          </InlineField>
        )}
      </InlineFieldRow>
      <InlineFieldRow>
        {reads('step') && (
          <InlineField label="Step" labelWidth={12} tooltip="Width of one point, e.g. 1m or 1h; empty follows the panel.">
            <Input aria-label="Step" width={12} defaultValue={query.step} placeholder="auto" onBlur={(e) => apply({ step: e.currentTarget.value || undefined })} />
          </InlineField>
        )}
        {kind.frame.startsWith('timeseries') && (
          <InlineField label="Values" labelWidth={12} tooltip="Which values of a series to show, e.g. mean; empty means all.">
            <MultiSelect aria-label="Values" width={30} allowCustomValue options={VALUES.map(option)} value={(query.values ?? []).map(option)} placeholder="all" onChange={(v) => apply({ values: values(v).length > 0 ? values(v) : undefined })} />
          </InlineField>
        )}
        {reads('limit') && (
          <InlineField label="Limit" labelWidth={12} tooltip="Rows at most; the answer says when it was cut.">
            <Input aria-label="Limit" width={12} type="number" min={1} defaultValue={query.limit} placeholder="100" onBlur={(e) => apply({ limit: Number(e.currentTarget.value) || undefined })} />
          </InlineField>
        )}
        {reads('segment') && <Pairs label="Segment" value={query.segment} names={columns} onChange={(segment) => apply({ segment })} />}
        {reads('filter') && <Pairs label="Filter" value={query.filter} names={columns} onChange={(filter) => apply({ filter })} />}
      </InlineFieldRow>
    </>
  );
}

/** The request as JSON: what `kedge query --json` takes as well. */
function Code({ query, apply }: Part) {
  const [error, setError] = useState<string>();
  const { refId, datasource, hide, key, queryType, code, adhoc, ...request } = query;
  const accept = (text: string) => {
    try {
      const read = JSON.parse(text);
      if (typeof read !== 'object' || read === null || Array.isArray(read)) {
        throw new Error('a request is a JSON object');
      }
      setError(undefined);
      const cleared = Object.fromEntries(Object.keys(request).map((k) => [k, undefined]));
      apply({ ...cleared, ...read });
    } catch (e) {
      setError(e instanceof Error ? e.message : String(e));
    }
  };
  return (
    <>
      <CodeEditor language="json" height={160} showMiniMap={false} showLineNumbers={false} value={JSON.stringify(request, null, 2)} onBlur={accept} onSave={accept} />
      {error && <Alert severity="error" title={`Not a request: ${error}`} />}
    </>
  );
}
