import React from 'react';
import { InlineField, InlineFieldRow, Input, Select } from '@grafana/ui';
import { VariableQuery } from '../types';

interface Props {
  query?: VariableQuery | string;
  onChange: (query: VariableQuery, definition: string) => void;
}

const LISTS: Array<{ value: VariableQuery['list']; label: string }> = [
  { value: 'models', label: 'Models' },
  { value: 'views', label: 'Feature views' },
  { value: 'columns', label: 'Columns of a model or view' },
  { value: 'versions', label: 'Versions of a model' },
  { value: 'segments', label: 'Segments of a model or view' },
  { value: 'detectors', label: 'Detectors' },
  { value: 'namespaces', label: 'Namespaces' },
];

/** Where the values of a dashboard variable come from. */
export function VariableEditor({ query, onChange }: Props) {
  const q: VariableQuery = typeof query === 'object' && query ? query : { refId: 'kedge', list: 'models' };
  const apply = (part: Partial<VariableQuery>) => {
    const next = { ...q, ...part };
    onChange(next, [next.list, next.model ?? next.view].filter(Boolean).join(' of '));
  };
  const hasColumns = q.list === 'columns' || q.list === 'segments';
  const needsSubject = hasColumns || q.list === 'versions';
  return (
    <InlineFieldRow>
      <InlineField label="List" labelWidth={12}>
        <Select aria-label="List" width={32} options={LISTS} value={q.list} onChange={(v) => apply({ list: v.value })} />
      </InlineField>
      {needsSubject && (
        <InlineField label="Model" labelWidth={12} tooltip="A name or a variable such as $model.">
          <Input aria-label="Model" width={24} defaultValue={q.model} placeholder="$model" onBlur={(e) => apply({ model: e.currentTarget.value || undefined })} />
        </InlineField>
      )}
      {hasColumns && (
        <InlineField label="or view" labelWidth={12}>
          <Input aria-label="View" width={24} defaultValue={q.view} placeholder="$view" onBlur={(e) => apply({ view: e.currentTarget.value || undefined })} />
        </InlineField>
      )}
    </InlineFieldRow>
  );
}
