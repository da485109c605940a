import { AdHocVariableFilter, CoreApp, DataSourceInstanceSettings, MetricFindValue, ScopedVars } from '@grafana/data';
import { DataSourceWithBackend, getTemplateSrv } from '@grafana/runtime';
import { column, segments, subjects, valueColumns, versions } from './catalog';
import { DEFAULT_QUERY, DETECTORS, Kind, KedgeOptions, KedgeQuery, VariableQuery, WireFrame } from './types';

type Ask = Pick<KedgeQuery, 'view' | 'model'>;

export class KedgeDataSource extends DataSourceWithBackend<KedgeQuery, KedgeOptions> {
  private known = new Map<string, Promise<WireFrame[]>>();
  private kindList?: Promise<Kind[]>;

  constructor(settings: DataSourceInstanceSettings<KedgeOptions>) {
    super(settings);
    // The query editor serves annotations too.
    this.annotations = {
      getDefaultQuery: () => ({ kind: 'annotations' }),
    };
  }

  getDefaultQuery(_: CoreApp): Partial<KedgeQuery> {
    return DEFAULT_QUERY;
  }

  filterQuery(q: KedgeQuery): boolean {
    return Boolean(q.kind) && !q.hide;
  }

  /** Fills dashboard variables in; a variable of several values becomes several columns. */
  applyTemplateVariables(q: KedgeQuery, scoped: ScopedVars, filters?: AdHocVariableFilter[]): KedgeQuery {
    const srv = getTemplateSrv();
    const text = (s?: string) => (s ? srv.replace(s, scoped) : s);
    const values = (s: string) => srv.replace(s, scoped, 'json').split('\n').flatMap((v) => expand(v));
    const many = (list?: string[]) => list?.flatMap(values);
    // A variable of several models, or All of them, is asked about one by one.
    const subject = (name: 'model' | 'view', s?: string) => {
      const each = s ? values(s) : [];
      return each.length > 1 ? { [name]: each[0], [`${name}s`]: each } : { [name]: s ? each[0] ?? '' : s };
    };
    const pairs = (m?: Record<string, string>) =>
      m && Object.fromEntries(Object.entries(m).map(([k, v]) => [k, srv.replace(v, scoped)]));
    return {
      ...q,
      ...(filters?.length ? { adhoc: filters.map(({ key, operator, value, values }) => ({ key, operator, value, values })) } : {}),
      namespace: text(q.namespace),
      ...subject('view', q.view),
      ...subject('model', q.model),
      version: text(q.version),
      detector: q.detector ? values(q.detector).join(',') : q.detector,
      columns: many(q.columns),
      group_by: many(q.group_by),
      segment: pairs(q.segment),
      filter: pairs(q.filter),
    };
  }

  /** The table of question kinds. */
  kinds(): Promise<Kind[]> {
    this.kindList ??= this.getResource('kinds').catch((e) => {
      this.kindList = undefined; // the next editor tries again
      throw e;
    });
    return this.kindList!;
  }

  /** The catalogue of everything, or of one view or model; kept for this page. */
  catalog(ask: Ask = {}): Promise<WireFrame[]> {
    const key = `${ask.view ?? ''}\n${ask.model ?? ''}`;
    let found = this.known.get(key);
    if (!found) {
      found = this.postResource<{ frames: WireFrame[] }>('catalog', ask).then((a) => a.frames ?? []);
      found.catch(() => this.known.delete(key));
      this.known.set(key, found);
    }
    return found;
  }

  /** What a dashboard's filters may name; columns of rows can be typed by hand. */
  async getTagKeys(): Promise<MetricFindValue[]> {
    return ['model', 'view', 'version', 'column', 'detector'].map((text) => ({ text }));
  }

  /** The values of a filter, from the catalogue: never a scan. */
  async getTagValues({ key }: { key: string }): Promise<MetricFindValue[]> {
    const all = await this.catalog();
    const known = subjects(all);
    const values = async (): Promise<string[]> => {
      switch (key) {
        case 'model':
        case 'view':
          return known.filter((s) => s.subject === key).map((s) => s.name);
        case 'version':
          return known.flatMap((s) => versions(all, s.name));
        case 'column': {
          const each = await Promise.all(known.slice(0, 50).map((s) => this.catalog({ [s.subject]: s.name })));
          return each.flatMap((frames) => column(frames, 'column'));
        }
        case 'detector':
          return DETECTORS;
      }
      return [];
    };
    return [...new Set(await values())].sort().map((text) => ({ text }));
  }

  async metricFindQuery(q: VariableQuery): Promise<MetricFindValue[]> {
    const srv = getTemplateSrv();
    if (q.list === 'models' || q.list === 'views') {
      const wanted = q.list === 'models' ? 'model' : 'view';
      return subjects(await this.catalog())
        .filter((s) => s.subject === wanted)
        .map((s) => ({ text: s.name }));
    }
    if (q.list === 'detectors') {
      return DETECTORS.map((text) => ({ text }));
    }
    if (q.list === 'versions') {
      return versions(await this.catalog(), srv.replace(q.model ?? '')).map((text) => ({ text }));
    }
    if (q.list === 'namespaces') {
      return [...new Set(column(await this.catalog(), 'namespace'))].map((text) => ({ text }));
    }
    const ask = q.model ? { model: srv.replace(q.model) } : { view: srv.replace(q.view ?? '') };
    const frames = await this.catalog(ask);
    return (q.list === 'segments' ? segments(frames) : valueColumns(frames)).map((text) => ({ text }));
  }
}

/** A variable of several values arrives as a JSON list; anything else as itself. */
export function expand(s: string): string[] {
  if (s.startsWith('[')) {
    try {
      const list: unknown = JSON.parse(s);
      if (Array.isArray(list)) {
        return list.map(String);
      }
    } catch {
      return [s]; // a column whose name starts with a bracket
    }
  }
  if (s.startsWith('"')) {
    try {
      return [String(JSON.parse(s))];
    } catch {
      return [s];
    }
  }
  return [s];
}
