import { Subject, WireFrame } from './types';

/** Values of a column in the first frame that has it, or none. */
export function column(frames: WireFrame[], name: string): string[] {
  const found = frames.flatMap((f) => f.columns).find((c) => c.name === name);
  return (found?.values ?? []).map((v) => String(v ?? ''));
}

/** The columns of one model or view that hold values: an entity's key is no measurement. */
export function valueColumns(frames: WireFrame[]): string[] {
  const role = column(frames, 'role');
  return column(frames, 'column').filter((_, i) => role[i] !== 'key');
}

/** The models and views of the whole catalogue. */
export function subjects(frames: WireFrame[]): Subject[] {
  const kind = column(frames, 'kind');
  const owner = column(frames, 'owner');
  return column(frames, 'name').map((name, i) => ({
    subject: kind[i] === 'model' ? 'model' : 'view',
    name,
    description: owner[i],
  }));
}

/** Columns by whose values rows fall into segments: few values, so texts and flags. */
export function segments(frames: WireFrame[]): string[] {
  const type = column(frames, 'type');
  return column(frames, 'column').filter((_, i) => /String|Bool|Enum/.test(type[i] ?? ''));
}

/** The versions of a model, from the whole catalogue. */
export function versions(frames: WireFrame[], model?: string): string[] {
  const kind = column(frames, 'kind');
  const at = column(frames, 'name').findIndex((name, i) => name === model && kind[i] === 'model');
  return (column(frames, 'versions')[at] ?? '').split(',').map((s) => s.trim()).filter(Boolean);
}
